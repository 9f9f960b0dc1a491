"""What this project is measured by: ours and the best of others, side by side in one run, figures by fixed names."""
