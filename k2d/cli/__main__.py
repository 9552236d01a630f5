from k2d.cli import main

main()
