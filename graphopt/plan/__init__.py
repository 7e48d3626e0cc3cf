"""Plans: how many units of each group stay, under a budget and with as little loss as can be measured."""
