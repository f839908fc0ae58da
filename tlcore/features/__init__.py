"""From images to features, and the statistics that scores need."""
