"""mathematics"""
