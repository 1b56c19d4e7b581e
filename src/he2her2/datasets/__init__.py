"""Public cohorts: TCGA-BRCA, HER2SC and HEROHE, from their own tables to a manifest."""
