"""`smar ablate`: one configuration and its variants, trained and measured alike, as one table."""
