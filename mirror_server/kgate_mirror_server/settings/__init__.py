"""What a person wrote in `kgate.yaml`, read strictly and with line numbers for every complaint."""
