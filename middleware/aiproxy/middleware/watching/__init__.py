"""What is watched apart from requests: windows of figures, the monitor, and the thread both live on."""
