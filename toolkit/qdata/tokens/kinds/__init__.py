"""What rows are, and how tokens are made of them: one file per kind, one public class each (qdata.tokens.kind.Kind)."""
