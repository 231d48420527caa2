print(model)
