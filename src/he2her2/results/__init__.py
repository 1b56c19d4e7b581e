"""What a prediction leaves on disk, and reading it back."""

from he2her2.results.slide_folder import write_evidence, write_segmentation

__all__ = ["write_evidence", "write_segmentation"]
