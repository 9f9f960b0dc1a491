"""MailService: what is sent to members that are away, held for others, taken and answered."""
