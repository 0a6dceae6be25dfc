"""Models of other libraries: River, or a file of yours."""
