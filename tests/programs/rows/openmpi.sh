# Every component.
# packages: openmpi-bin
ompi_info --all --parsable; echo "$?"
