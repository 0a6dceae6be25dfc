"""What words mean: tables of word vectors, and what learns from them."""
