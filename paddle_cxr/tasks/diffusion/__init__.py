"""Training a text-to-image latent diffusion model; see :mod:`paddle_cxr.models.latent_diffusion` for what it is."""
