"""The study: on speech whose words are known, which filter keeps the better labels? `k2d study`."""
