logits = outputs[:, -1, :]
label = torch.argmax(logits)
print("Class label:", label.item())
