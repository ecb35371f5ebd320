"""`python -m appliance.cli`: how one of our processes starts another."""

from appliance.cli import main

main()
