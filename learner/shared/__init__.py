"""What is the same on all machines of one journal, beside the model?"""
