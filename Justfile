# Thin names; `cargo xtask --help` tells more.

# Build the image, boot it, ask it something
demo *arguments:
    cargo xtask demo {{arguments}}

# Test everything that can be tested here
test *arguments:
    cargo xtask test {{arguments}}

# Measure what protection costs
bench *arguments:
    cargo xtask bench {{arguments}}

# Build vitrine.fd
image:
    cargo xtask image

# Run the image in QEMU until Ctrl-C
boot *arguments:
    cargo xtask boot {{arguments}}

# Format every workspace
fmt:
    cargo xtask fmt

# Clippy in every workspace
lint:
    cargo xtask lint

# Search for model files that do harm
fuzz *arguments:
    cargo xtask fuzz {{arguments}}

# Build the image twice elsewhere and compare
reproduce *arguments:
    cargo xtask reproduce {{arguments}}

# Hold the image against what is published, or publish it
release *arguments:
    cargo xtask release {{arguments}}
