"""What the serving bench asks beside ours: each as its own tutorial would build it, in files of its own."""
