"""The probe of a study: what each depth of each network knows about the images."""
