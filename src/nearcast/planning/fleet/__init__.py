"""The whole fleet's plan: which sites hold which models, and where each site's requests go.

Decided on arrays (`problem`), so that thousands of sites are planned in seconds on one core. What one site does with
its part of the plan, second by second, is decided in `planning.routes`.
"""
