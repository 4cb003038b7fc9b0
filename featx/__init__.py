"""featx: image transfer learning on cached features.

Extract once. Fit in seconds. Promote when it pays. The public names are loaded on first use (PEP 562), so that
``import featx`` costs neither torch nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names
from featx._version import __version__

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "advice.advice": ["Advice", "advise"],
        "advice.ranking": ["Ranking", "rank"],
        "backbones.backbone": ["Backbone", "load_backbone"],
        "data.image_set": ["ImageSet"],
        "data.scan": ["scan_images"],
        "data.transform": ["Transform"],
        "deployment.exporting": ["export_model"],
        "deployment.job": ["ModelExport"],
        "errors": ["FeatxError"],
        "extraction.pipeline": ["extract"],
        "extraction.result": ["Extraction"],
        "features.exchange.exporting": ["FeatureExport", "export_features"],
        "features.exchange.importing": ["FeatureImport", "import_features"],
        "features.feature_file": ["FeatureFile"],
        "features.feature_set": ["FeatureSet"],
        "features.shards": ["MergedShards", "merge_shards"],
        "heads.head": ["Head"],
        "heads.registry": ["register_head"],
        "inference": ["Prediction", "evaluate", "iter_predictions", "load_model", "predict"],
        "inspection.corrected_table": ["write_fixed_table"],
        "inspection.exports": ["Export", "export"],
        "inspection.pipeline": ["inspect"],
        "inspection.result": ["Inspection"],
        "inspection.suggestions": ["Suggestions", "suggest"],
        "metrics.classification": ["ClassificationReport"],
        "metrics.cross_validation": ["CrossValidated"],
        "metrics.multilabel": ["MultiLabelReport"],
        "metrics.paired": ["PairedTest"],
        "metrics.regression": ["RegressionReport"],
        "promotion.config": ["FineTuning"],
        "promotion.model": ["PromotedModel"],
        "promotion.promotion": ["Promotion", "promote"],
        "reporter": ["Reporter"],
        "retrieval.explanation": ["Explanation", "explain", "iter_explanations"],
        "retrieval.similar": ["SearchResult", "search"],
        "streaming.writing": ["WrittenPredictions", "write_predictions"],
        "tracking.tracker": ["Tracker"],
        "workflows.compare_files": ["compare_heads"],
        "workflows.fit": ["fit_head"],
        "workflows.fit_result": ["Fit"],
        "workflows.head_comparison": ["HeadComparison"],
        "workflows.head_list": ["HeadList", "list_heads"],
    },
)
__all__ += ["__version__"]

if TYPE_CHECKING:
    from featx.advice.advice import Advice as Advice
    from featx.advice.advice import advise as advise
    from featx.advice.ranking import Ranking as Ranking
    from featx.advice.ranking import rank as rank
    from featx.backbones.backbone import Backbone as Backbone
    from featx.backbones.backbone import load_backbone as load_backbone
    from featx.data.image_set import ImageSet as ImageSet
    from featx.data.scan import scan_images as scan_images
    from featx.data.transform import Transform as Transform
    from featx.deployment.exporting import export_model as export_model
    from featx.deployment.job import ModelExport as ModelExport
    from featx.errors import FeatxError as FeatxError
    from featx.extraction.pipeline import extract as extract
    from featx.extraction.result import Extraction as Extraction
    from featx.features.exchange.exporting import FeatureExport as FeatureExport
    from featx.features.exchange.exporting import export_features as export_features
    from featx.features.exchange.importing import FeatureImport as FeatureImport
    from featx.features.exchange.importing import import_features as import_features
    from featx.features.feature_file import FeatureFile as FeatureFile
    from featx.features.feature_set import FeatureSet as FeatureSet
    from featx.features.shards import MergedShards as MergedShards
    from featx.features.shards import merge_shards as merge_shards
    from featx.heads.head import Head as Head
    from featx.heads.registry import register_head as register_head
    from featx.inference import Prediction as Prediction
    from featx.inference import evaluate as evaluate
    from featx.inference import iter_predictions as iter_predictions
    from featx.inference import load_model as load_model
    from featx.inference import predict as predict
    from featx.inspection.corrected_table import write_fixed_table as write_fixed_table
    from featx.inspection.exports import Export as Export
    from featx.inspection.exports import export as export
    from featx.inspection.pipeline import inspect as inspect
    from featx.inspection.result import Inspection as Inspection
    from featx.inspection.suggestions import Suggestions as Suggestions
    from featx.inspection.suggestions import suggest as suggest
    from featx.metrics.classification import ClassificationReport as ClassificationReport
    from featx.metrics.cross_validation import CrossValidated as CrossValidated
    from featx.metrics.multilabel import MultiLabelReport as MultiLabelReport
    from featx.metrics.paired import PairedTest as PairedTest
    from featx.metrics.regression import RegressionReport as RegressionReport
    from featx.promotion.config import FineTuning as FineTuning
    from featx.promotion.model import PromotedModel as PromotedModel
    from featx.promotion.promotion import Promotion as Promotion
    from featx.promotion.promotion import promote as promote
    from featx.reporter import Reporter as Reporter
    from featx.retrieval.explanation import Explanation as Explanation
    from featx.retrieval.explanation import explain as explain
    from featx.retrieval.explanation import iter_explanations as iter_explanations
    from featx.retrieval.similar import SearchResult as SearchResult
    from featx.retrieval.similar import search as search
    from featx.streaming.writing import WrittenPredictions as WrittenPredictions
    from featx.streaming.writing import write_predictions as write_predictions
    from featx.tracking.tracker import Tracker as Tracker
    from featx.workflows.compare_files import compare_heads as compare_heads
    from featx.workflows.fit import fit_head as fit_head
    from featx.workflows.fit_result import Fit as Fit
    from featx.workflows.head_comparison import HeadComparison as HeadComparison
    from featx.workflows.head_list import HeadList as HeadList
    from featx.workflows.head_list import list_heads as list_heads
