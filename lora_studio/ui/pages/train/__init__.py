"""The Train page: from a folder of pictures to an adapter."""
