print("Last output token:", outputs[:, -1, :])
