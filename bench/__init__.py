"""`make bench`: how fast ZAP questions are answered, in ratios to other ways, all in one run on one machine."""
