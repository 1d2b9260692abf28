"""Many inputs: read, shared among workers, recorded in a store, and resumed.

`run` draws the votes that are not in the `store` yet, so that a killed run resumes where it stopped. `model_check`
checks that stored votes are the model's, and `recertify` makes certificates of them without a model.
"""
