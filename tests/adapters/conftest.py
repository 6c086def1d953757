"""Its being here lets the rooms of this folder import test_contract, whose models they share."""
