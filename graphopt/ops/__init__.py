"""The operator table: what each operator means, written once."""
