"""From nodes to calls: one file for each kind of operator, and the table that names them."""
