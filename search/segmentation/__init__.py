"""Which pixels of photos and videos are the object (PDM, personalized segmentation)."""
