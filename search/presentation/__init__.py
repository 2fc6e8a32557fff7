"""What the command line and the page both tell of an answer, in words and as JSON; and what a model
makes of photos, in pictures."""
