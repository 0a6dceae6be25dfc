"""How does a machine that only answers get the model that another one learns?"""
