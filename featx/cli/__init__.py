"""The command line. ``featx.cli.main.main`` is the command ``featx``; nothing else here is public."""
