"""Where networks come from: one module for each source, listed in ``featx.backbones.registry``."""
