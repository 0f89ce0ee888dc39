"""How good labels are: matching of instances, the metrics of the papers, reports."""
