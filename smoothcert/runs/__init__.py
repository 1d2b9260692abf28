"""Many inputs: read, shared among workers, recorded in a store, and resumed."""
