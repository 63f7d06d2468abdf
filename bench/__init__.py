"""How fast Banyan is: one module per question, each answered beside its peers and floors in one run."""
