"""Storage: ordered trees, snapshots, transactions.

Start with `interface`, the door. `transaction` has the rules (who may write what, who sees what); `timeline` what lies
above the pages; `memory` is a whole store in 200 lines; `embedded.store` the one that lasts.
"""
