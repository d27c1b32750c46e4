"""Tables in, dataset out: catalogue, search log and pictures become pairs, qrels and packed pictures."""
