"""The methods: one file each, named by its stem; `_base.Method` says what a method may do and when."""
