"""xent in other people's trainers and metrics: each module needs the package it is named for."""
