"""In which order do several learners learn, and which of them leads?"""
