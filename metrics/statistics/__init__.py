"""Statistics of samples: functions of features, logits and scores alone, which know no network and no file."""
