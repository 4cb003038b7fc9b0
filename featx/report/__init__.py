"""Pictures and pages about heads."""
