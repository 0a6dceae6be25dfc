"""The pages for readers, their pictures, and what makes a site of them."""
