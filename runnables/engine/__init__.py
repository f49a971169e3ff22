"""The engine batches continuously: requests join and leave between denoiser steps."""
