raise ImportError("No module named featx")
