"""The six methods of Tables 3 and 4, trained and tested side by side (paper, 5.4).

The ablation itself loads torch and Lightning, and is entered directly: `ablation.ablate`.
"""

from he2her2.ablation.manifests import AblationData, StudyFiles
from he2her2.ablation.methods import load_ablation

__all__ = ["AblationData", "StudyFiles", "load_ablation"]
