"""What an artist does to her pictures before training: looking, captions, crops, masks, leaving out. Starts without
torch.
"""
